"""R1+'s architecture and its distillation, in torch. The backend torch serves with it.

The extras `distil` and `torch` bring torch. A module that needs none says so.
"""
