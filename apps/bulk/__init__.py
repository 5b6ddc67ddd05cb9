"""Detection in very many files, by several processes or machines, that can be stopped and goes on."""
