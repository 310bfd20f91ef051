"""Is the ensemble's opinion kept, replaced or escalated?"""
