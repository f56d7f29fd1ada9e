"""Repeat the paper's study, which trains networks by several methods, attacks and compares them."""
