"""What a problem is, in a form that a run in another process can compare with its own."""

from .fingerprint import Fingerprint as Fingerprint, fingerprint as fingerprint
from .release import digest_of_files as digest_of_files, digest_of_project as digest_of_project
