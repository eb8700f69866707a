"""The files that trained weights live in, each format in one small module."""
