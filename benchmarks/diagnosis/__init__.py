"""The doctor beside others' tools on the same scripts: a file for each tool, asked for by cases/diagnosis.py."""
