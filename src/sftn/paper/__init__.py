"""The paper's tables and figures, one declarative module each."""
