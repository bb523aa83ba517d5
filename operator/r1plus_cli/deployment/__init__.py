"""Commands of an R1PlusDeployment: `plan`, `validate`, `status`, `explain` and `ask`."""
