"""The colours that pages and pictures share."""

RISING, FALLING = "#26a69a", "#ef5350"
OUTSIDE = "#f1f4f9"
"""Behind candles outside the regular session."""
MARKERS = {"long": "#00796b", "short": "#c62828", "neutral": "#7e57c2"}
GRID, LINE, TEXT = "#f0f1f4", "#9598a1", "#131722"
