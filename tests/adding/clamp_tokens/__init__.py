"""An operator from outside: values of tokens, held between two limits."""
