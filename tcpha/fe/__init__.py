"""The front end: takes connections for the virtual address and hands them off."""
