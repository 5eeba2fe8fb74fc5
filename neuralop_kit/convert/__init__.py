"""Any torch network becomes a neural operator."""
