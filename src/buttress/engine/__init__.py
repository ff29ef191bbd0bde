"""What runs an attack: one call, one oracle, one result; methods hold mathematics only."""
