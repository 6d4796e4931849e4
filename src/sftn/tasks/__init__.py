"""What is minimised: a network alone, with its student's branches, or by distillation."""
