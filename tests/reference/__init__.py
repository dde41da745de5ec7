"""Plain Python written from the RFCs: the oracle of the differential tests and the slow line of the benchmarks."""
