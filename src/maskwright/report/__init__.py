"""Evaluation -> one self-contained HTML page that opens offline."""

from maskwright.report.page import report

__all__ = ["report"]
