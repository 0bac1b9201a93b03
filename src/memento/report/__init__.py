"""Figures and pages, made from result tables; figures compute nothing.

What is put beside the paper is computed in `comparison` and `ordering`, and nowhere else.
"""
