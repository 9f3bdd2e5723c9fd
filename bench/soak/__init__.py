"""The soak: workers under random faults for as long as one likes, and a judge who explains every second run.

python -m bench soak --database sqlite --minutes 30
"""
