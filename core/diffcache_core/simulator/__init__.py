"""The cache over keys only: the same selector, policy, credit and admission as the serving process, nothing drawn."""
