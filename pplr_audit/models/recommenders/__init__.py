"""The two recommenders, BIGRec and RecFormer, behind one task."""
