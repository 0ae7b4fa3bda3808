"""What every part of diffcache shares: the resource, the request, states, the choice of a resume, and the policy.

Everything here is a value or a pure function; nothing imports torch, kopf, or talks to anyone.
"""
