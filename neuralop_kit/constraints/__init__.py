"""Layers whose output obeys physics exactly, solved per subdomain and differentiated by the implicit function theorem."""
