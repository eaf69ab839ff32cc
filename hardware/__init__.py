"""Proof of providers without their hardware: the real libraries, on emulations that install from the registries."""
