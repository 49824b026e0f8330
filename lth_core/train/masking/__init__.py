"""Masks in training: fixed, gradual, dynamic or learned."""
