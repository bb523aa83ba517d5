"""The pods of the plan as supervised processes of this machine."""
