"""What happens to training texts before tokenisation: cleaning, decontamination, translation."""
