"""What users named, written where it is read: labels, names of classes and data sets, paths.

A name may hold whatever its writer liked. One function for each medium writes it so that it can
neither end nor change what is around it: rich's markup (`[/oops]`), matplotlib's mathematics
(`$x`), Markdown's tables, HTML's tags, and a terminal's control codes.
"""

import html
import re

from rich.text import Text

from clipjax.train.log import printable

LONGEST = 60
"""Letters of a name that a figure shows: a longer one would make it wider than files can be."""

_MARKDOWN = re.compile(
    r"[\\`*\[\]$~|]"  # code, emphasis, links, mathematics, deletions, cells
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis, which an underscore inside a word does not make
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # HTML
    r"|^[#>]|^[+-](?=[\s-]|$)"  # headings, quotations, lists
)
_NUMBER = re.compile(r"^(\d+)(?=[.)]\s)")  # numbered lists


def plain(name: object) -> str:
    r"""Return a name as one line that can be written: see `clipjax.train.log.printable`.

    Examples:
        >>> plain("two\nlines"), plain("red \x1b[31m"), plain("caf\udce9")
        ('two lines', 'red \\x1b[31m', 'caf\\udce9')
    """
    return printable(str(name))


def in_terminal(name: object, style: str = "") -> Text:
    """Return a name for rich's tables and lines: no markup, no emoji codes.

    Examples:
        >>> in_terminal("[bold]a[/oops] :smile:").plain
        '[bold]a[/oops] :smile:'
    """
    return Text(plain(name), style)


def in_markdown(name: object) -> str:
    r"""Return a name for Markdown, inside tables or out of them.

    Examples:
        >>> print(in_markdown("a|b *c* _d_ e_f <g> h < i [j](k) $l$ `m` &amp;"))
        a\|b \*c\* \_d\_ e_f \<g> h < i \[j\](k) \$l\$ \`m\` \&amp;
        >>> print(*map(in_markdown, ("# no title", "10. no list", "- nor this", "-1.5")), sep="; ")
        \# no title; 10\. no list; \- nor this; -1.5
    """
    return _NUMBER.sub(r"\1\\", _MARKDOWN.sub(r"\\\g<0>", plain(name).strip()))


def in_html(name: object) -> str:
    """Return a name for HTML, inside attributes or out of them.

    Examples:
        >>> in_html("<a> & 'b'")
        '&lt;a&gt; &amp; &#x27;b&#x27;'
    """
    return html.escape(plain(name), quote=True)


def in_figure(name: object, longest: int = LONGEST) -> str:
    r"""Return a name for matplotlib: no mathematics, not too long, and never left out of a legend.

    Examples:
        >>> print(in_figure("5$ and $x"), in_figure("_hidden"), in_figure("a" * 99)[-3:])
        5\$ and \$x  _hidden aa…
    """
    shown = plain(name)
    if len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown  # legends skip what begins with it
