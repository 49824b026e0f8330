"""How a mask behaves in training: fixed, gradual, dynamic or learned."""
