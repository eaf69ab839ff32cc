"""A Windows Python under Wine, and what is checked of embedmill in it."""
