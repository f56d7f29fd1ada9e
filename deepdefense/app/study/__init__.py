"""The paper's study: networks trained by several methods, attacked, and set in tables."""
