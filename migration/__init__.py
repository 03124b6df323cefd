"""Moving one collection and proving it: no Faust, no command line."""
