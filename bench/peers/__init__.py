"""The same work on other engines. Each module is a program that prints the seconds it took, as JSON."""
