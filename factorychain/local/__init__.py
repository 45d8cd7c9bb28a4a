"""The whole chain on one machine: what `factorychain up` starts, watches and stops.

Nothing here is needed on Kubernetes, where every service is its own deployment.
"""
