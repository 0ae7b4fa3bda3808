"""What all parts of diffcache share: the resource, the request, states, the choice of a resume, and the policies.

Nearly everything here is a value or a pure function. Nothing imports torch or kopf.
"""
