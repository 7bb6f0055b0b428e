"""What the gRPC door speaks: lorad.proto and the stubs that scripts/stubs.py makes of it."""
