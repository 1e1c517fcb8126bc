"""Small programs to begin from; each says at its top how to run it."""
