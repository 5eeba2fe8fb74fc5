"""Layers whose output obeys physics exactly, solved per subdomain, differentiated by the implicit function theorem."""
