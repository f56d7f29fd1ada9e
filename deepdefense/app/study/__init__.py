"""Repeat the paper's study: train networks by several methods, attack them, and write tables."""
