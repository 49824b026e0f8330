"""What training is measured against: a textbook loop on the same images, and the floor."""
