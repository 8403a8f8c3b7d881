"""Transports: how calls reach programs and services."""
