"""One module per migration; each is a transaction of its own, and goes back as well as forward."""
