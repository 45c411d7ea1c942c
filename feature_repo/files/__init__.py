"""Files and folders on disk: written whole, locked, and readable by those who may.

atomic_write.py      write a file or a folder completely or not at all
array_file.py        arrays larger than memory, with their space on the disk reserved
private_file.py      files that only their owner may read
locks.py             one run of a step at a time
lmdb_environment.py  LMDB files opened once per process, shared by threads and safe after a fork
csv_export.py        CSV without formulas for spreadsheets
json_text.py         JSON whose every fault is a ValueError
json_lines.py        files with one JSON object a line; malformed lines are refused with their number
"""
