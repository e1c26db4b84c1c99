"""What commands are made of: configs, programs, inputs, the command line."""
