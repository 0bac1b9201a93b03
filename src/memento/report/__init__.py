"""Figures and pages, made from result tables: nothing is computed here."""
