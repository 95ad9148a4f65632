"""Finished models in use.

finding     which model a run, its name, its folder or a registered name means
inputs      files of rows, read in parts: tables, arrays, folders of images
answering   files of rows -> a file of named answers
serving     MLflow's scoring server over a model; speed: how fast it answers
evaluation  a model on new labelled rows: labelled reads them, intervals and drift judge, page shows
promotion   whether a model takes the place of a registered one
"""
