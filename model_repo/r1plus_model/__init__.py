"""R1+'s architecture and its distillation, in torch, which no other package imports. Nothing that serves imports this.

The extra `distil` brings torch. A module that needs none says so.
"""
