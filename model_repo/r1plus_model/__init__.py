"""R1+'s architecture and its distillation, in torch. Of what serves only the backend torch imports this.

The extras `distil` and `torch` bring torch. A module that needs none says so.
"""
