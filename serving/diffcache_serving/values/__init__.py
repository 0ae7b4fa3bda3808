"""The values that travel through a serving process. They know nobody else here."""
