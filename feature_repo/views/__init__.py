"""Feature views, one file per entity."""
