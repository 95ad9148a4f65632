"""Finished models in use.

finding     which model a run, its name or its folder means
inputs      files of rows, read in parts: tables, arrays, folders of images
answering   files of rows -> a file of named answers
serving     MLflow's scoring server over a model
"""
