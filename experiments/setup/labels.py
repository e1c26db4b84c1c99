"""What users named, written where it is read: labels, names of classes and data sets, paths.

A name may hold whatever its writer liked. One function for each medium writes it so that it can
neither end nor change what is around it: rich's markup (`[/oops]`), matplotlib's mathematics
(`$x`), Markdown's tables, HTML's tags, and a terminal's control codes.
"""

import html
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping

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


_SIGNS = "±×·≤≥≠≈∞√→←∂∇∑∏∫∈µ✗αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"
_COMMANDS = (
    "pm times cdot leq geq neq approx infty surd rightarrow leftarrow partial nabla sum prod int "
    "in mu times alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi "
    "rho sigma tau upsilon varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi "
    "Psi Omega"
)
_LATEX = {
    **{letter: f"\\{letter}" for letter in "%&$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # which would belong to the \\\\ before them
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{'"': r"\symbol{34}", "`": r"\symbol{96}"},
    **{"–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "’": "'", "∕": "/"},
    **{sign: f"$^{{{i}}}$" for i, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{sign: f"$_{{{i}}}$" for i, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **{sign: f"$\\{name}$" for sign, name in zip(_SIGNS, _COMMANDS.split(), strict=True)},
    "−": "$-$",
}


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


def in_html(name: object, breaks: bool = False) -> str:
    """Return a name for HTML, inside attributes or out of them.

    Args:
        name: what to show.
        breaks: whether a line may end inside a long word; for text only, since it needs a tag.

    Examples:
        >>> in_html("<a> & 'b'")
        '&lt;a&gt; &amp; &#x27;b&#x27;'
        >>> in_html("clip_by_quantile(0.9) x", breaks=True)
        'clip_<wbr>by_<wbr>quantile(<wbr>0.9) x'
    """
    pieces = _pieces(plain(name)) if breaks else [plain(name)]
    return "<wbr>".join(html.escape(piece, quote=True) for piece in pieces)


def in_latex(name: object) -> str:
    r"""Return a name for LaTeX's text, inside tables or out of them.

    Mathematical signs and Greek letters become mathematics, other letters stay as they are (those
    that are not Latin need XeLaTeX or LuaLaTeX with a fitting font), and what else is not ASCII is
    written as its code point. Long words may be broken.

    Examples:
        >>> print(in_latex(r"50 % of $x_1^2 & {#~\}"), in_latex("97.1 ± 0.3, δ ≤ -1"), sep="; ")
        50 \% of \$x\_1\textasciicircum{}2 \& \{\#\textasciitilde{}\textbackslash{}\}; 97.1
        $\pm$ 0.3, $\delta$ $\leq$ $-$1
        >>> print(in_latex("[/oops]*"), in_latex("--lr"), in_latex("\u2603"))  # nor options of \\
        {[}/oops{]}{*} -{}-lr \texttt{U+2603}
    """
    pieces = _pieces(unicodedata.normalize("NFC", plain(name)))
    text = r"\allowbreak{}".join("".join(map(_latex, piece)) for piece in pieces)
    text = re.sub(r"(?<![\w.)}\-])-(?=[\d.])", "$-$", text)
    return re.sub(r"([-',])(?=\1)", r"\1{}", text)  # no ligatures


def _latex(letter: str) -> str:
    if (known := _LATEX.get(letter)) is not None:
        return known
    if letter.isascii() or letter.isalnum():
        return letter
    return rf"\texttt{{U+{ord(letter):04X}}}"


def _pieces(text: str, longest: int = 20) -> list[str]:
    """Cut long words where a line may end: behind _ ( , = / and a point in a name."""
    found = [""]
    for word in re.split(r"(\s+)", text):
        parts = [word]
        if len(word) > longest:
            cut = re.split(r"(?<=[_(,=/])(?=.)|(?<=[A-Za-z]\.)(?=.)", word)
            parts = [p[i : i + longest] for p in cut for i in range(0, len(p), longest)]
        found[-1] += parts[0]
        found += parts[1:]
    return found


def in_figure(name: object, longest: int = LONGEST, lines: int = 1) -> str:
    r"""Return a name for matplotlib: no mathematics, not too long, and never left out of a legend.

    Args:
        name: what to show.
        longest: letters in a line.
        lines: how many lines a name may take; what is too long for them is cut.

    Examples:
        >>> print(in_figure("5$ and $x"), in_figure("_hidden"), in_figure("a" * 99)[-3:])
        5\$ and \$x  _hidden aa…
        >>> in_figure("chain(clip, adamw(lr))", longest=12, lines=2)
        'chain(clip,\nadamw(lr))'
    """
    shown = plain(name)
    if len(shown) > longest and lines > 1:
        wrapped = textwrap.wrap(shown, longest, max_lines=lines, placeholder="…")
        shown = "\n".join(wrapped) or " "
    elif len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown  # legends skip what begins with it


def shortened(names: Iterable[object], longest: int) -> list[str]:
    """Return names of at most so many letters that still differ where the names do.

    Those that would be the same without their ends lose their middles, or else what comes before
    and after the place where they part.

    Examples:
        >>> shortened(["sgd", "chain(clip, sgd(lr))", "adam(lr) and more"], 9)
        ['sgd', 'chain(cl…', 'adam(lr)…']
        >>> shortened(["chain(clip, sgd(lr))", "chain(clip, adam(lr))"], 9)
        ['…ip, sgd…', '…ip, ada…']
    """
    whole = [plain(name) for name in names]
    cut = {name: _cut(name, longest, longest - 1) for name in whole}
    for alike in _alike(cut):
        cut |= {name: _cut(name, longest, (longest - 1) // 2) for name in alike}
    for alike in _alike(cut):
        letters = enumerate(zip(*alike, strict=False))
        parting = next((i for i, found in letters if len(set(found)) > 1), min(map(len, alike)))
        start = max(0, parting - 4)
        cut |= {name: f"…{_cut(name[start:], longest - 1, longest - 2)}" for name in alike}
    for alike in _alike(cut):
        cut |= {name: f"{name[: longest - 4]}…{i}" for i, name in enumerate(alike, 1)}
    return [cut[name] for name in whole]


def _alike(cut: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of names that are cut to the same."""
    groups: dict[str, list[str]] = {}
    for name, short in cut.items():
        groups.setdefault(short, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _cut(name: str, longest: int, head: int) -> str:
    """Leave out what is after the first `head` letters, but for an end that finds room."""
    if len(name) <= longest:
        return name
    tail = longest - 1 - head
    return f"{name[:head]}…{name[len(name) - tail :]}"
