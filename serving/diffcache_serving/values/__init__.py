"""The values that travel through a serving process. They import no other part of it."""
